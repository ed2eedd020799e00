package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/term"
)

func newPassword() *cobra.Command {
	var cost int
	c := &cobra.Command{
		Use:   "password",
		Short: "make the hash of a password, for admin.users",
		Long: `Password reads a password and prints its bcrypt hash, for password_hash in [admin.users.NAME]. On a terminal it asks twice and
shows nothing of what is typed; else it reads one line.`,
		Example: `  awe4lb password
  head -c 18 /dev/urandom | base64 | tee /dev/stderr | awe4lb password`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			password, err := readPassword(c)
			if err != nil {
				return err
			}
			if len(password) < 8 || len(password) > 72 {
				return fmt.Errorf("the password has %d bytes; want 8 to 72", len(password))
			}
			hash, err := bcrypt.GenerateFromPassword([]byte(password), cost)
			if err != nil {
				return fmt.Errorf("--cost: %w", err)
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), string(hash))
			return err
		},
	}
	c.Flags().IntVar(&cost, "cost", bcrypt.DefaultCost, "how much work a guess takes: 4 to 15, each twice that of the one before")
	return c
}

// readPassword reads one line, or on a terminal the same thing twice.
func readPassword(c *cobra.Command) (string, error) {
	in, isFile := c.InOrStdin().(*os.File)
	if !isFile || !term.IsTerminal(int(in.Fd())) {
		line, err := bufio.NewReader(io.LimitReader(c.InOrStdin(), 4096)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return "", err
		}
		return strings.TrimRight(line, "\r\n"), nil
	}
	said, err := askSecrets(in, c.ErrOrStderr(), "Password: ", "Once more: ")
	if err != nil {
		return "", err
	}
	if said[0] != said[1] {
		return "", errors.New("the two passwords differ")
	}
	return said[0], nil
}
