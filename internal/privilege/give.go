package privilege

import (
	"io/fs"
	"os"
	"path/filepath"
)

// Give makes a file that root has made, or a folder and all in it, the property of a user, and of a group or the user's
// own. Links are given, not followed.
func Give(path, userName, group string) error {
	u, err := lookupUser(userName)
	if err != nil {
		return err
	}
	uid, gid, _, err := ids(u, group)
	if err != nil {
		return err
	}
	return filepath.WalkDir(path, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, gid)
	})
}
