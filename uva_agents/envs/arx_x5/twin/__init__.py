"""The arm's simulated twin: model, plant, controller with the SDK's methods, cameras."""
