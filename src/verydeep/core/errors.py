"""The one exception that a user's mistake raises, in every room of the house."""


class VerydeepError(Exception):
    """A mistake the user can mend: one clear sentence saying what, where and what to do.

    The command line prints the sentence to stderr and exits with status 2; from Python it is
    raised as it is.
    """


class ToldElsewhere(VerydeepError):
    """A mistake that another process of the same job tells, so that it is told once."""


class Diverged(VerydeepError):
    """A training whose loss, gradient or dev posteriors are not finite, or whose dev loss rose to that of guessing."""


class ImageError(VerydeepError):
    """A photo that cannot be read; the sentence names the file and the fault."""

    def named(self, name: str) -> "ImageError":
        """The same fault with the photo's name before it, where it does not name it yet."""
        return self if name in str(self) else type(self)(f"{name}: {self}")


class ReadError(ImageError):
    """A photo whose bytes the operating system could not give, which may pass: disks on a network do that."""


class FormatError(ImageError):
    """A photo in no format that is read, or no photo at all."""


class SizeError(ImageError):
    """A photo of more pixels than are read."""


class NotAnImageError(ImageError, TypeError):
    """Something handed over in Python that is no image, or one whose values have no agreed meaning."""
