"""Images and sounds from outside, decoded within bounds: for authors of model servers (extra `media`).

`decoded_image` and `decoded_audio` take bytes, never names of files or addresses.
"""

from vfastml.media.audio import AudioBounds, decoded_audio
from vfastml.media.image import ImageBounds, decoded_image

__all__ = ["AudioBounds", "ImageBounds", "decoded_audio", "decoded_image"]
