"""The life of a trained model, and the lowest layer that reads and writes files. Trained models: there is no ORM here."""
