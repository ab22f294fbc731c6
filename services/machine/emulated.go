package machine

// EmulatedArguments are kernel arguments for machines that are emulated in
// software (site option "emulated"), in every system that we boot there. Most
// save time. nohz=off is for correctness: with multi-threaded TCG a wake-up can
// be lost, and a processor that idles without a tick then sleeps for ever
// (seen under UEFI: both processors halted, no timer due, nothing pending); the
// tick finds the work.
var EmulatedArguments = []string{
	"mitigations=off", "nowatchdog", "audit=0", "tsc=reliable", "random.trust_cpu=on", "nohz=off",
	// Each line on an emulated serial port costs milliseconds.
	"quiet", "systemd.show_status=0",
}
