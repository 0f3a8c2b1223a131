"""Read data files into conversations: locate, decompress and parse them, and count every record."""
