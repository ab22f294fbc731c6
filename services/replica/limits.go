package replica

// Connections that a replica has open at once. Each costs a descriptor, a
// forwarded one two. Their sum fits into the 65,536 that the appliance sets
// (appliance, openFiles) with room for the log, blobs and TFTP's transfers, so
// that no flood on one port closes another, or the log.
const (
	machineConns          = 4096 // to the machines' HTTP server
	machineConnsPerSource = 64   // an installer has up to four

	peopleConns          = 2048 // the registry's requests are half of them at most
	peopleConnsPerSource = 64   // a browser has six and a stream a page

	// forwardConns are shared evenly by the addresses at which the Kubernetes
	// API is forwarded: the service address, and the appliance's on each link.
	// A node has a few dozen.
	forwardConns = 16384

	otherFiles = 4096 // log, snapshots, blobs on their way, DHCP, TFTP, BMCs to come
	openFiles  = 65536
)

// The compiler refuses a sum that is too large.
const _ = uint(openFiles - (machineConns + peopleConns + 2*forwardConns + otherFiles))

// forwardShare is how many connections one of n forwarders may have.
func forwardShare(n int) int { return max(forwardConns/max(n, 1), 1) }
