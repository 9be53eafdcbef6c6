package upkeep

import (
	"slices"
	"strings"
	"time"

	"upkeep/internal/lazy"
)

// Account is a customer, or a member of staff: it owns sites and sees its own
// jobs. Its name is the name of its system user on servers, so it follows the
// rules of those.
type Account struct {
	Name string `json:"name"`
	// Email is where the account is told of what concerns it.
	Email string `json:"email,omitempty"`
	// UID is the number of its system user, the same on every server, because
	// files on a shared disk carry numbers. Chosen by upkeep when left out.
	UID int `json:"uid,omitempty"`
	// Suspended accounts keep everything and serve nothing.
	Suspended bool `json:"suspended,omitempty"`
}

func (a Account) ObjectKind() string { return KindAccount }
func (a Account) ObjectName() string { return a.Name }

// Numbers that system users of accounts may have. The range lies above what
// Debian gives to people (1000 to 59999 is shared with them, policy section 9.2.2)
// and below 60000. An agent's policy may allow less.
const (
	MinUID = 20000
	MaxUID = 59999
)

// Delegation lets an account use a domain that lies in the domain of another:
// the owner of example.test says that blog.example.test, and all below it, is
// for the account to use.
type Delegation struct {
	// Name is the domain that is given.
	Name string `json:"name"`
	// Account is who may use it.
	Account string `json:"account"`
	// Until is when it ends, as RFC 3339; it does not end when left out. Sites
	// that are there by then stay as they are; they can be suspended and removed,
	// and not be changed otherwise.
	Until string `json:"until,omitempty"`
}

func (d Delegation) ObjectKind() string { return KindDelegation }
func (d Delegation) ObjectName() string { return d.Name }

// accountName is what Debian's useradd takes, less the underscore, dots and a
// trailing hyphen, and never a number, so that it cannot be read as a user id.
var accountName = lazy.Regexp(`^[a-z][a-z0-9-]{0,29}[a-z0-9]$`)

// ValidAccount reports whether name may be that of an account: not one of the
// names that systems give to their own users and groups.
func ValidAccount(name string) bool {
	return accountName().MatchString(name) && !slices.Contains(reservedAccounts, name)
}

// reservedAccounts are users and groups of Debian (base-passwd, policy section
// 9.2.1) and of well-known packages, and names that people would take for the
// operator's.
var reservedAccounts = strings.Fields(`
	root daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc gnats nobody nogroup
	adm tty disk kmem dialout fax voice cdrom floppy tape sudo audio dip operator src shadow utmp video sasl plugdev staff users
	admin administrator apache apache2 avahi bind caddy clamav cron crontab dbus docker dovecot exim Debian-exim ftp git haproxy
	hosted httpd input kvm ldap libvirt lxd mariadb memcached messagebus mongodb mysql named netdev nginx nfs ntp opendkim php
	pgsql polkitd postfix postgres postmaster proftpd rabbitmq redis render rpc rsync saslauth shutdown halt reboot ssh sshd
	ssl-cert syslog systemd systemd-journal systemd-network systemd-resolve systemd-timesync tcpdump tor tss upkeep uuidd vmail
	webmaster wheel www zabbix`)

// mailbox is the part of an address before the @: what people's addresses have
// (RFC 5321 section 4.1.2 has more), and nothing that a mail program takes for an
// option, a command or a file.
var mailbox = lazy.Regexp(`^[A-Za-z0-9_][A-Za-z0-9_.+=~'-]{0,63}$`)

func (a Account) Validate() []FieldError {
	var r rules
	r.account("name", a.Name)
	if a.Email != "" {
		local, host, _ := strings.Cut(a.Email, "@")
		if !mailbox().MatchString(local) || !ValidName(host) || len(a.Email) > 254 {
			r.add("email", a.Email, "must be a plain address such as web@example.test")
		}
	}
	if a.UID != 0 && (a.UID < MinUID || a.UID > MaxUID) {
		r.add("uid", a.UID, "must be %d to %d", MinUID, MaxUID)
	}
	return r.fields
}

func (d Delegation) Validate() []FieldError {
	var r rules
	if !ValidHost(d.Name) {
		r.add("name", d.Name, "must be a domain such as blog.example.test")
	}
	r.account("account", d.Account)
	if _, err := time.Parse(time.RFC3339, d.Until); d.Until != "" && err != nil {
		r.add("until", d.Until, "must be a time such as 2027-01-31T12:00:00Z")
	}
	return r.fields
}

// account checks a field that names an account.
func (r *rules) account(field, name string) {
	switch {
	case slices.Contains(reservedAccounts, name):
		r.add(field, name, "is a name that systems use themselves; take another")
	case !ValidAccount(name):
		r.add(field, name, "must be 2 to 31 lower-case letters, digits and hyphens, beginning with a letter and not ending in a hyphen")
	}
}
