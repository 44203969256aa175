"""What the kernel is asked and told: netlink, sockets, routes, packets in and out, rules, namespaces."""
