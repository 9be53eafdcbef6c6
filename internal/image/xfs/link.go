package xfs

const maxLink = 1024 // bytes, as in the kernel

var linkSignature = signature{sum: 12, uuid: 16, owner: 32, place: 40}

// Link implements [lookup.Node].
func (n *inode) Link() (string, error) {
	switch {
	case n.size == 0 || n.size > maxLink:
		return "", damaged("the symbolic link of inode %d has %d bytes", n.number, n.size)
	case n.format == inInode:
		text, err := n.local()
		return string(text), err
	}
	return n.remoteLink()
}

// remoteLink is a text that has blocks. With version 5 each piece of it, which is as
// long as the blocks that follow each other, has a header.
func (n *inode) remoteLink() (string, error) {
	header := int64(0)
	if n.fs.V5 {
		header = 56
	}
	perBlock := n.fs.BlockSize - header
	var text []byte
	for e, err := range n.extents(span{0, (n.size + perBlock - 1) / perBlock}) {
		if err != nil {
			return "", err
		}
		b := make([]byte, e.count*n.fs.BlockSize)
		if err := n.fs.read(b, e.at); err != nil {
			return "", err
		}
		length := min(int64(len(b))-header, n.size-int64(len(text)))
		if n.fs.V5 {
			if string(b[:4]) != "XSLM" || int64(be32(b[4:])) != int64(len(text)) || int64(be32(b[8:])) != length {
				return "", damaged("the block at byte %d is not that of the symbolic link of inode %d", e.at, n.number)
			}
			if err := n.fs.verify(b, linkSignature, n.number, e.at); err != nil {
				return "", damaged("the block at byte %d, of the symbolic link of inode %d: %s", e.at, n.number, err)
			}
		}
		text = append(text, b[header:header+length]...)
	}
	if int64(len(text)) != n.size {
		return "", damaged("the symbolic link of inode %d has %d bytes of %d", n.number, len(text), n.size)
	}
	return string(text), nil
}
