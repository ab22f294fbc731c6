package initramfs

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/klauspost/compress/zstd"
)

// The archive is read back by our own small reader of the kernel's format.
func TestCpioIsWhatTheKernelReads(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	tr := tree{}
	tr.put("/a/b/file", entry{mode: modeFile, file: file})
	tr.put("link", entry{mode: modeLink, data: []byte("/init")})
	tr.put("dev/console", entry{mode: modeChar, dev: [2]uint32{5, 1}})
	var b bytes.Buffer
	if err := tr.write(&b, 1795478400); err != nil {
		t.Fatal(err)
	}
	got := readCpio(t, b.Bytes())
	want := []string{
		"a 040755 ", "a/b 040755 ", "a/b/file 100644 hello", "dev 040755 ",
		"dev/console 020600 ", "link 120777 /init",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	var again bytes.Buffer
	if err := tr.write(&again, 1795478400); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), again.Bytes()) {
		t.Error("written twice, the bytes differ")
	}
}

func TestNames(t *testing.T) {
	for _, c := range []struct {
		word, path string
		want       bool
	}{
		{"drivers/ata", "kernel/drivers/ata/ahci.ko.xz", true},
		{"drivers/ata", "kernel/drivers/atax/ahci.ko.xz", false},
		{"virtio_net", "kernel/drivers/net/virtio_net.ko.xz", true},
		{"crc-t10dif", "kernel/lib/crc-t10dif.ko.xz", true},
		{"crc32c*", "kernel/arch/x86/crypto/crc32c-intel.ko.xz", true},
		{"loop", "kernel/drivers/usb/loopback.ko.xz", false},
		{"drivers/usb/host/sl811*", "kernel/drivers/usb/host/sl811-hcd.ko.xz", true},
	} {
		if got := names(c.word, c.path); got != c.want {
			t.Errorf("names(%q, %q) = %t", c.word, c.path, got)
		}
	}
}

func TestChosenTakesWhatModulesNeed(t *testing.T) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	dir := fstest.MapFS{
		"kernel/fs/ext4/ext4.ko.xz":     file(""),
		"kernel/fs/jbd2/jbd2.ko.xz":     file(""),
		"kernel/lib/crc32c_cry.ko.xz":   file(""),
		"kernel/sound/snd.ko.xz":        file(""),
		"kernel/fs/ext4/unwanted.ko.xz": file(""),
		"modules.dep": file("kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz\nkernel/fs/jbd2/jbd2.ko.xz:\n" +
			"kernel/lib/crc32c_cry.ko.xz:\nkernel/sound/snd.ko.xz:\nkernel/fs/ext4/unwanted.ko.xz:\n"),
		"modules.softdep": file("softdep ext4 pre: crc32c_cry\n"),
		"modules.alias":   file(""),
		"modules.builtin": file("kernel/net/packet/af_packet.ko\n"),
	}
	got, err := chosen(dir, []string{"fs/ext4", "af_packet"}, []string{"unwanted"})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"kernel/fs/ext4/ext4.ko.xz", "kernel/fs/jbd2/jbd2.ko.xz", "kernel/lib/crc32c_cry.ko.xz"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if _, err := chosen(dir, []string{"no_such"}, nil); err == nil || !strings.Contains(err.Error(), `"no_such"`) {
		t.Errorf("an unknown module: %v", err)
	}
}

// A dynamic program of the host, put into a tree with its libraries, is
// whole: ld.so and libc are among them.
func TestProgramsBringTheirLibraries(t *testing.T) {
	program, err := filepath.EvalSymlinks("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	tr := tree{}
	if err := tr.programs("/", program); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{clean(program), interpreter, "usr/lib/x86_64-linux-gnu/libc.so.6"} {
		if tr[want].mode != modeProg {
			t.Errorf("/%s is missing", want)
		}
	}
	if err := tr.programs("/", "usr/sbin/no-such-program"); err == nil {
		t.Error("a missing program was taken")
	}
}

func TestCompressIsReadableByTheReferenceDecoder(t *testing.T) {
	tr := tree{}
	tr.put("x", entry{mode: modeFile, data: bytes.Repeat([]byte("rackseed"), 1<<17)})
	out := filepath.Join(t.TempDir(), "i")
	if err := compress(out, tr, 1); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := zstd.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	var b bytes.Buffer
	if _, err := z.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	if got := readCpio(t, b.Bytes()); len(got) != 1 || len(got[0]) != len("x 100644 ")+8<<17 {
		t.Errorf("%d entries", len(got))
	}
}

func readCpio(t *testing.T, b []byte) []string {
	t.Helper()
	var got []string
	for off := 0; ; {
		if off+110 > len(b) || string(b[off:off+6]) != "070701" {
			t.Fatalf("no header at %d", off)
		}
		field := func(i int) int {
			n := 0
			for _, c := range b[off+6+8*i : off+14+8*i] {
				n = n<<4 | strings.IndexByte("0123456789ABCDEF", c)
			}
			return n
		}
		mode, size, nameLen := field(1), field(6), field(11)
		name := string(b[off+110 : off+110+nameLen-1])
		data := off + (110+nameLen+3)/4*4
		if name == "TRAILER!!!" {
			return got
		}
		got = append(got, strings.Join([]string{name, octal(mode), string(b[data : data+size])}, " "))
		off = data + (size+3)/4*4
	}
}

func octal(n int) string {
	s := ""
	for ; n > 0; n >>= 3 {
		s = string(rune('0'+n&7)) + s
	}
	if len(s) < 6 {
		s = "0" + s
	}
	return s
}
