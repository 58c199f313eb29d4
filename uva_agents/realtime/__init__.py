"""Agents on a moving arm: inference beside the control loop, chunks joined in time, recording and replay."""

from uva_agents.realtime.arx import ArxRobotInterface
from uva_agents.realtime.chunk_source import AgentChunkSource, ChunkRequest, ChunkSource, absolute, lookback
from uva_agents.realtime.controls import Command, Controls, keyboard
from uva_agents.realtime.latency import LatencyMeter, next_inference_s
from uva_agents.realtime.loop import Loop
from uva_agents.realtime.recorded import RecordedRobotInterface, ReplayedEpisode
from uva_agents.realtime.recorder import EpisodeRecorder
from uva_agents.realtime.replay import RecordedActions, ReplayChunkSource, is_replay, open_recording
from uva_agents.realtime.robot_interface import Observed, RobotInterface, SendReport
from uva_agents.realtime.schedule import ChunkCounts, ChunkSchedule, ScheduleSettings
from uva_agents.realtime.session import OperatorSession
from uva_agents.realtime.telemetry import AgentError, EpisodeSummary, LoopSettings, Status
from uva_agents.realtime.trajectory import ActionLayout, Trajectory, merge, stamped
from uva_agents.realtime.view import View, summary
from uva_agents.realtime.worker import InferenceWorker, ProcessWorker, Reply, ThreadWorker

__all__ = [
    "ActionLayout",
    "AgentChunkSource",
    "AgentError",
    "ArxRobotInterface",
    "ChunkCounts",
    "ChunkRequest",
    "ChunkSchedule",
    "ChunkSource",
    "Command",
    "Controls",
    "EpisodeRecorder",
    "EpisodeSummary",
    "InferenceWorker",
    "LatencyMeter",
    "Loop",
    "LoopSettings",
    "Observed",
    "OperatorSession",
    "ProcessWorker",
    "RecordedActions",
    "RecordedRobotInterface",
    "ReplayChunkSource",
    "ReplayedEpisode",
    "Reply",
    "RobotInterface",
    "ScheduleSettings",
    "SendReport",
    "Status",
    "ThreadWorker",
    "Trajectory",
    "View",
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
