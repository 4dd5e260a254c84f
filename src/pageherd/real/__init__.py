"""Real kernels: levers, runner, virtual machines, and the model held to what they do."""
