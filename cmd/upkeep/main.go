// Command upkeep keeps what an operator hosts the way it was declared: what DNS
// answers with, and which sites web servers serve.
package main

import "os"

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
