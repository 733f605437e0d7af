"""Finding peers of the network whose address is not known any more: a Kademlia DHT of signed peer records."""
