"""The arm behind its safety layer, with cameras, as environments and the control loop use it."""
