"""`python -m keras_spectral VERB`."""

from keras_spectral.cli import main

if __name__ == "__main__":
    main()
