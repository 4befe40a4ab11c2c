"""Traces of requests, with OpenTelemetry: imported only by a gateway that has somewhere to send them."""
