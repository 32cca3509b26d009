"""The mechanism: channels with their logs, the followers that read them, the generations that write them."""
