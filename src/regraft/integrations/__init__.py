"""Evolution inside other people's training loops: Lightning, Hugging Face's Trainer, Keras 3 on torch.

Each module needs its framework (the extras ``lightning``, ``huggingface``, ``keras``); none is imported here.
"""
