"""The decoders that run models of the Llama family on a CPU, as EngineConfig names them: all must say the same."""

DECODERS = ("hf", "fused-torch", "fused")
