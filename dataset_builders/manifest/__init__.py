"""What a mix leaves behind so that its stream can be rebuilt and looked into."""
