// Command etcd is the etcd server alone, without etcdctl and etcdutl.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
