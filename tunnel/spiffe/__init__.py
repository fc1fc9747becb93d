"""The SPIFFE standards as values and rules: IDs, X509-SVID, JWT-SVID, bundles, Workload API messages. No sockets, no clock."""
