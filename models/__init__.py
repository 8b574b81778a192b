"""The life of a trained model, and the lowest layer that reads and writes files. There is no ORM here."""
