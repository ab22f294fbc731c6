package bench

import (
	"fmt"
	"regexp"
	"strconv"
)

// exchanges are what perfdhcp (Kea's load generator) counted.
type exchanges struct {
	asked    int // DISCOVERs that it sent
	complete int // ACKs that it got
}

var ackSection = regexp.MustCompile(`(?s)\*\*\*Statistics for: DISCOVER-OFFER\*\*\*\s+sent packets: (\d+)\s.*\*\*\*Statistics for: REQUEST-ACK\*\*\*\s+sent packets: \d+\s+received packets: (\d+)\s`)

// readPerfdhcp finds the counts in a report of perfdhcp 2.
func readPerfdhcp(report string) (exchanges, error) {
	found := ackSection.FindStringSubmatch(report)
	if found == nil {
		return exchanges{}, fmt.Errorf("perfdhcp's report lacks its counts of DISCOVER-OFFER and REQUEST-ACK:\n%s", report)
	}
	var e exchanges
	for i, to := range []*int{&e.asked, &e.complete} {
		n, err := strconv.Atoi(found[i+1])
		if err != nil {
			return exchanges{}, fmt.Errorf("perfdhcp's report: %w", err)
		}
		*to = n
	}
	return e, nil
}
