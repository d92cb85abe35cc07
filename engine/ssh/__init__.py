"""ssh to nodes, over asyncssh.

client        connections: how many at a time, which are tried again, which are shared
config        what `ssh -G` makes of the user's configuration; grammar reads it for many hosts at once
dial          tcp, or the way through jump hosts
known_hosts   host keys, strictly: an unknown key is not a changed one
login, keys   keys, agent and certificates; never a password
link          one program on a node, over a channel
"""
