//! The node ring: the driver and what surrounds it over real sockets, without a kernel's help.

mod api_server;
