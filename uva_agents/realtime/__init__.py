"""Agents on a moving arm: inference beside the control loop, chunks joined in time, recording and replay."""

from uva_agents.realtime.account import AgentError, Episode, LoopSettings, Status
from uva_agents.realtime.arx import ArxBody
from uva_agents.realtime.body import Body, Observed, Scheduled
from uva_agents.realtime.chunker import AgentChunker, Chunker, Job, absolute, lookback
from uva_agents.realtime.controls import Command, Controls, keyboard
from uva_agents.realtime.latency import LatencyMeter, next_inference_s
from uva_agents.realtime.loop import Loop
from uva_agents.realtime.recorder import EpisodeRecorder
from uva_agents.realtime.replay import Recording, ReplayChunker, is_replay, open_recording
from uva_agents.realtime.schedule import ChunkCounts, ChunkSchedule, ScheduleSettings
from uva_agents.realtime.session import Session
from uva_agents.realtime.trajectory import ActionLayout, Trajectory, merge, stamped
from uva_agents.realtime.view import View, summary
from uva_agents.realtime.worker import ProcessWorker, Reply, ThreadWorker, Worker

__all__ = [
    "ActionLayout",
    "AgentChunker",
    "AgentError",
    "ArxBody",
    "Body",
    "ChunkCounts",
    "ChunkSchedule",
    "Chunker",
    "Command",
    "Controls",
    "Episode",
    "EpisodeRecorder",
    "Job",
    "LatencyMeter",
    "Loop",
    "LoopSettings",
    "Observed",
    "ProcessWorker",
    "Recording",
    "ReplayChunker",
    "Reply",
    "ScheduleSettings",
    "Scheduled",
    "Session",
    "Status",
    "ThreadWorker",
    "Trajectory",
    "View",
    "Worker",
    "absolute",
    "is_replay",
    "keyboard",
    "lookback",
    "merge",
    "next_inference_s",
    "open_recording",
    "stamped",
    "summary",
]
