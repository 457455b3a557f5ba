"""A run of bytes inside a file, read as if it were a file of its own."""

import io
import os
from typing import BinaryIO


class Window(io.RawIOBase):
    """Bytes `offset` to `offset + size` of an open file, which it closes with itself."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._file, self._offset, self._size, self._position = file, offset, size, 0

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def seekable(self) -> bool:
        """Tell that it can seek."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move within the window, whose first byte is 0."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def tell(self) -> int:
        """Return where the next read starts."""
        return self._position

    def readinto(self, buffer) -> int:  # noqa: ANN001 - anything with the buffer protocol
        """Fill a buffer from the window and return how many bytes that were."""
        view = memoryview(buffer).cast("B")
        left = max(self._size - self._position, 0)
        self._file.seek(self._offset + self._position)
        data = self._file.read(min(len(view), left))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        """Close the window and the file it looks into."""
        self._file.close()
        super().close()
