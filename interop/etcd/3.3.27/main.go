package main

import "github.com/coreos/etcd/etcdmain"

func main() { etcdmain.Main() }
