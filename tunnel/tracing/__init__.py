"""OpenTelemetry traces of connections; needs the optional extra `otel`."""
