// Package disk divides the disk that a machine is installed on. Which one that
// is, machine.ChooseDisk decides.
package disk
