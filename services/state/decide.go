package state

import (
	"fmt"
	"regexp"
	"time"
)

// decide is the state machine: what a command does to the tables, or a
// *Refusal. It reads no clock, makes nothing up, and does no I/O. index and term
// are those of the entry in the log.
func decide(t tables, at time.Time, by string, index, term uint64, command Command) (*change, error) {
	c := &change{tables: t, at: at.UTC(), by: by, index: index, term: term}
	var err error
	switch x := command.(type) {
	case SiteApply:
		err = c.siteApply(x)
	case ClusterCreate:
		err = c.clusterCreate(x)
	case EpochBegin:
		err = c.epochBegin(x)
	case ImagePublish:
		err = c.imagePublish(x)
	case MachineSee:
		err = c.machineSee(x)
	case LeaseBind:
		err = c.leaseBind(x)
	case LeaseRelease:
		err = c.leaseRelease(x)
	case LeaseDecline:
		err = c.leaseDecline(x)
	case BootDecide:
		err = c.bootDecide(x)
	case SessionOpen:
		err = c.sessionOpen(x)
	case MachineApprove:
		err = c.machineApprove(x)
	case MachineForget:
		err = c.machineForget(x)
	case IntentClaim:
		err = c.intentClaim(x)
	case IntentRetry:
		err = c.intentRetry(x)
	case IntentRevoke:
		err = c.intentRevoke(x)
	case InstallReport:
		err = c.installReport(x)
	case NodeReport:
		err = c.nodeReport(x)
	case BootstrapClaim:
		err = c.bootstrapClaim(x)
	case BootstrapAbandon:
		err = c.bootstrapAbandon(x)
	case JoinClaim:
		err = c.joinClaim(x)
	case DiscoveryWindow:
		err = c.discoveryWindow(x)
	case MachineInvite:
		err = c.machineInvite(x)
	case RescueOpen:
		err = c.rescueOpen(x)
	case SessionLeave:
		err = c.sessionLeave(x)
	case SessionRefuse:
		err = c.sessionRefuse(x)
	case SessionHere:
		err = c.sessionHere(x)
	case MachineSilent:
		err = c.machineSilent(x)
	case OutputStore:
		err = c.outputStore(x)
	case ClusterRecover:
		err = c.clusterRecover(x)
	case SetupRenew:
		err = c.setupRenew(x)
	case UserPut:
		err = c.userPut(x)
	case LoginOpen:
		err = c.loginOpen(x)
	case LoginEnd:
		err = c.loginEnd(x)
	case ReplicaTell:
		err = c.replicaTell(x)
	case ReplicaInvite:
		err = c.replicaInvite(x)
	case ReplicaJoin:
		err = c.replicaJoin(x)
	case ReplicaProve:
		err = c.replicaProve(x)
	case ReplicaLeave:
		err = c.replicaLeave(x)
	case HandoffStart:
		err = c.handoffStart(x)
	case HandoffMove:
		err = c.handoffMove(x)
	case HandoffDid:
		err = c.handoffDid(x)
	case HandoffLost:
		err = c.handoffLost(x)
	case HandoffResume:
		err = c.handoffResume(x)
	case RolloutStart:
		err = c.rolloutStart(x)
	case RolloutTell:
		err = c.rolloutTell(x)
	case RolloutDid:
		err = c.rolloutDid(x)
	case RolloutStop:
		err = c.rolloutStop(x)
	case RolloutKeep:
		err = c.rolloutKeep()
	case FeatureRaise:
		err = c.featureRaise(x)
	case KeyNext:
		err = c.keyNext(x)
	case KeyTurn:
		err = c.keyTurn(x)
	case SecretReseal:
		err = c.secretReseal(x)
	case RecoveryPut:
		err = c.recoveryPut(x)
	case StateCheck: // apply does it
	case Note:
		err = c.note(x)
	default:
		// Only a kind that was added to kinds and not here; a test holds the
		// two together.
		err = fmt.Errorf("command %T has no rule", command)
	}
	return c, err
}

var digest = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// word checks an identifier that the proposer made up or a machine sent.
func word(what, s string) error {
	if s == "" || len(s) > maxWord {
		return refuse("%s %.40q: 1 to %d bytes are expected", what, s, maxWord)
	}
	return nil
}
