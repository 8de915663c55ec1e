"""`VerydeepError`, raised for every mistake that a user can cause, and its subclasses."""


def first_line(error: BaseException, most: int = 120) -> str:
    """The beginning of an error's message, for a part of a sentence."""
    return (str(error).splitlines() or [type(error).__name__])[0][:most]


class VerydeepError(Exception):
    """A mistake that the user can fix: one clear sentence saying what, where and what to do.

    The command line prints the sentence to stderr and exits with status 2.
    """


class ToldElsewhere(VerydeepError):
    """An error that another process of the same job prints, so that it is printed once."""


class Diverged(VerydeepError):
    """A training whose loss, gradient or dev posteriors are not finite, or whose dev loss rose to chance."""


class ImageError(VerydeepError):
    """An image that cannot be read; the message names the file and the fault."""

    def named(self, name: str) -> "ImageError":
        """The same error with the image's name in front, unless the message contains it."""
        return self if name in str(self) else type(self)(f"{name}: {self}")


class ReadError(ImageError):
    """An image that the operating system could not read, which may be temporary, as on network disks."""


class FormatError(ImageError):
    """A file in an unsupported image format, or no image at all."""


class SizeError(ImageError):
    """An image with more pixels than allowed."""


class NotAnImageError(ImageError, TypeError):
    """An object passed in Python that is not an image, or an array whose range of values is unknown."""
