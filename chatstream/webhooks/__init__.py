"""Webhooks: send events to the operator's server, so that it can notify users who do not watch."""
