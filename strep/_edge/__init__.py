"""Where datagrams come from, sockets and capture files, and the HTTP server."""
