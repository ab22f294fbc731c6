package machine

// EmulatedArguments are kernel arguments for machines that are emulated in
// software (site option "emulated"), in every system that we boot there. Most
// save time. nohz=off and highres=off are for correctness: with multi-threaded
// TCG a wake-up can be lost, and a processor whose timer fires once and is set
// anew by the interrupt that was lost then sleeps for ever (seen: both processors
// halted, no timer due, nothing pending). With both the timer is periodic, and its
// next tick finds the work.
var EmulatedArguments = []string{
	"mitigations=off", "nowatchdog", "audit=0", "tsc=reliable", "random.trust_cpu=on", "nohz=off", "highres=off",
	// Each line on an emulated serial port costs milliseconds.
	"quiet", "systemd.show_status=0",
}
