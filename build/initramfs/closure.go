package initramfs

// Programs are Debian programs of the unpacked root, at their own paths, and
// the libraries that they need: path in the new tree → file.
func Programs(root string, paths ...string) (map[string]string, error) {
	t := tree{}
	if err := t.programs(root, paths...); err != nil {
		return nil, err
	}
	files := map[string]string{}
	for p, e := range t {
		if e.file != "" {
			files[p] = e.file
		}
	}
	return files, nil
}
