package vswitch

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"
)

// pcapWriter writes the classic libpcap format, microseconds, Ethernet
// (https://wiki.wireshark.org/Development/LibpcapFileFormat).
type pcapWriter struct {
	w   io.Writer
	err error
}

// Record writes every frame that the switch forwards to w, in pcap format,
// until StopRecording, which returns the first error of writing.
func (s *Switch) Record(w io.Writer) error {
	header := binary.LittleEndian.AppendUint32(nil, 0xa1b2c3d4)
	header = binary.LittleEndian.AppendUint16(header, 2)
	header = binary.LittleEndian.AppendUint16(header, 4)
	for _, v := range []uint32{0, 0, MaxFrame, 1} { // zone, accuracy, longest frame, Ethernet
		header = binary.LittleEndian.AppendUint32(header, v)
	}
	if _, err := w.Write(header); err != nil {
		return fmt.Errorf("recording the switch: %w", err)
	}
	s.recordMu.Lock()
	defer s.recordMu.Unlock()
	s.record = &pcapWriter{w: w}
	return nil
}

// StopRecording ends it.
func (s *Switch) StopRecording() error {
	s.recordMu.Lock()
	defer s.recordMu.Unlock()
	if s.record == nil {
		return nil
	}
	err := s.record.err
	s.record = nil
	if err != nil {
		return fmt.Errorf("recording the switch: %w", err)
	}
	return nil
}

func (s *Switch) capture(frame []byte, now time.Time) {
	s.recordMu.Lock()
	defer s.recordMu.Unlock()
	if s.record == nil || s.record.err != nil {
		return
	}
	b := binary.LittleEndian.AppendUint32(nil, uint32(now.Unix()))
	b = binary.LittleEndian.AppendUint32(b, uint32(now.Nanosecond()/1000))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(frame)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(frame)))
	_, s.record.err = s.record.w.Write(append(b, frame...))
}
