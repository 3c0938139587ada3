"""Where the command line begins: from here on Ctrl-C is a line and not a traceback."""

from keras_spectral.interrupts import interrupts_heeded


def main(arguments=None):
    """Run the command line.

    Errors that a user can mend are one line on stderr, or the traceback with `--debug`,
    which may stand anywhere. The exit code is 0 if all went well, 1 for a checkpoint
    that does not match (in a sweep: for any row that failed), 2 for one that cannot be
    read, for wrong arguments and for what cannot be written or printed, 3 for one that
    is refused as unsafe, 70 for a fault of our own, 130 for Ctrl-C. A reader that
    goes, as `head` does, is no error.

    Args:
        arguments: Optional list of strings; default `sys.argv[1:]`.
    """
    try:
        with interrupts_heeded():
            # The libraries of the command line take a while to import themselves.
            from keras_spectral.cli import app

            app.run(arguments)
    except KeyboardInterrupt:
        from keras_spectral.cli import streams

        streams.interrupted()
