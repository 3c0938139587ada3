"""`python -m keras_spectral.cli`."""

from keras_spectral.cli import main

if __name__ == "__main__":
    main()
