"""What a Keras model is made of: kinds of layers, weights, copies."""
