"""The arm as numbers: geometry, limits, kinematics, and what its parts agree on."""
