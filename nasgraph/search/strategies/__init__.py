"""Search strategies that see graphs: samplers that propose whole architectures."""
