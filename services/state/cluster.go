package state

import (
	"crypto/subtle"
	"fmt"
	"maps"
	"slices"

	"github.com/rackseed/rackseed/services/machine"
)

func (c *change) siteApply(x SiteApply) error {
	c.put(tableSite, &siteRow{Site: x.Site})
	c.event("", "site.applied", machine.Info, fmt.Sprintf("Site file of %q applied: %s, %s listed",
		x.Site.Name, plural(len(x.Site.Links), "link"), plural(len(x.Site.Machines), "machine")), "by", c.by)
	return nil
}

func (c *change) clusterCreate(x ClusterCreate) error {
	r := c.cluster()
	if r.Created {
		return refuse("cluster %s exists already: a cluster is made once", r.ID)
	}
	if err := word("cluster ID", x.ID); err != nil {
		return err
	}
	r.Created, r.ID, r.Generation, r.SetupHash = true, x.ID, x.Generation, x.SetupHash
	c.put(tableCluster, &r)
	c.put(tableKeyring, &Keyring{Current: x.Key})
	for _, name := range slices.Sorted(maps.Keys(x.Secrets)) {
		if x.Secrets[name].Key != x.Key {
			return refuse("secret %.40s is sealed under data key %.40q, not under %.40q", name, x.Secrets[name].Key, x.Key)
		}
		c.put(tableSecrets, &secretRow{Name: name, Sealed: x.Secrets[name]})
	}
	c.event("", "cluster.created", machine.Info, fmt.Sprintf("Cluster %s created, generation %d", x.ID, x.Generation), "cluster", x.ID)
	return nil
}

func (c *change) epochBegin(x EpochBegin) error {
	r := c.cluster()
	r.Epoch++
	r.Leader, r.Term = x.Leader, c.term
	c.put(tableCluster, &r)
	c.event("", "epoch.begun", machine.Info, fmt.Sprintf("Replica %s leads: epoch %d", x.Leader, r.Epoch),
		"leader", x.Leader, "epoch", fmt.Sprint(r.Epoch))
	return nil
}

func (c *change) imagePublish(x ImagePublish) error {
	for _, i := range x.Images {
		if err := word("image reference", i.Ref); err != nil {
			return err
		}
		if !digest.MatchString(i.Digest) {
			return refuse("image %s: digest %.80q: sha256: and 64 hex digits are expected", i.Ref, i.Digest)
		}
		if old := first[machine.Image](c.tables, tableImages, byID, key(i.Ref)); old != nil && *old == i {
			continue
		}
		c.put(tableImages, &i)
		c.event("", "image.published", machine.Info, fmt.Sprintf("Image %s is %.19s…", i.Ref, i.Digest), "ref", i.Ref, "digest", i.Digest, "by", c.by)
	}
	return nil
}

func (c *change) setupRenew(x SetupRenew) error {
	cluster := c.cluster()
	switch {
	case !cluster.Created:
		return refuse("there is no cluster yet to set up")
	case len(x.SetupHash) != 32:
		return refuse("setup code: its hash has %d bytes, 32 are expected", len(x.SetupHash))
	}
	cluster.SetupHash, cluster.SetupUsed = x.SetupHash, false
	c.put(tableCluster, &cluster)
	c.event("", "setup.renewed", machine.Warning, fmt.Sprintf("A new setup code was made by %s: whoever uses it first becomes an administrator", asker(c.by)), "by", c.by)
	return nil
}

func (c *change) userPut(x UserPut) error {
	if err := word("user name", x.Name); err != nil {
		return err
	}
	if len(x.PasswordHash) == 0 {
		return refuse("user %s: a password is missing", x.Name)
	}
	cluster := c.cluster()
	if x.SetupHash != nil {
		switch {
		case !cluster.Created:
			return refuse("there is no cluster yet to set up")
		case cluster.SetupUsed:
			return refuse("the setup code was used already: log in as the user it made, or let that user make another")
		case len(cluster.SetupHash) == 0 || subtle.ConstantTimeCompare(cluster.SetupHash, x.SetupHash) != 1:
			return refuse("the setup code is wrong: it is on the appliance's screen, or was told by rackseed break-glass")
		}
		cluster.SetupUsed = true
		c.put(tableCluster, &cluster)
	}
	u := User{Name: x.Name, PasswordHash: x.PasswordHash, Created: c.at}
	verb := "created"
	if old := first[User](c.tables, tableUsers, byID, key(x.Name)); old != nil {
		u.Created, verb = old.Created, "has a new password"
		// Who knew the old password shall not stay logged in.
		c.endLogins(x.Name)
	}
	c.put(tableUsers, &u)
	how := "by " + asker(c.by)
	if x.SetupHash != nil { // nobody was there yet who could have done it
		how = "with the setup code"
	}
	c.event("", "user.put", machine.Info, fmt.Sprintf("User %s %s %s", x.Name, verb, how), "user", x.Name, "by", c.by)
	return nil
}

func (c *change) endLogins(user string) {
	under(c.tables, tableLogins, byUser, key(user), func(l *Login) bool {
		c.remove(tableLogins, l)
		return true
	})
}

func (c *change) loginOpen(x LoginOpen) error {
	if len(x.TokenHash) != 32 {
		return refuse("login of %.40q: the token's hash has %d bytes, 32 are expected", x.User, len(x.TokenHash))
	}
	if first[User](c.tables, tableUsers, byID, key(x.User)) == nil {
		return refuse("there is no user %.40q", x.User)
	}
	if !x.Expires.After(c.at) {
		return refuse("login of %s: it would have expired already", x.User)
	}
	if first[Login](c.tables, tableLogins, byID, x.TokenHash) != nil {
		return refuse("login of %s: this token is in use", x.User)
	}
	kept := 0
	each(c.tables, tableLogins, byExpiry, nil, func(l *Login) bool {
		if !l.Expires.After(c.at) {
			c.remove(tableLogins, l)
		} else {
			kept++
		}
		return kept < maxLogins
	})
	if kept >= maxLogins {
		if l, ok := must(c.txn.First(tableLogins, byExpiry)).(*Login); ok && l.Expires.After(c.at) {
			c.remove(tableLogins, l)
		}
	}
	c.put(tableLogins, &Login{TokenHash: x.TokenHash, User: x.User, Opened: c.at, Expires: x.Expires.UTC()})
	c.event("", "login.opened", machine.Info, fmt.Sprintf("User %s logged in", x.User), "user", x.User)
	return nil
}

func (c *change) loginEnd(x LoginEnd) error {
	l := first[Login](c.tables, tableLogins, byID, x.TokenHash)
	if l == nil {
		return nil // ended twice is ended
	}
	c.remove(tableLogins, l)
	c.event("", "login.ended", machine.Info, fmt.Sprintf("User %s logged out", l.User), "user", l.User)
	return nil
}

func (c *change) note(x Note) error {
	if err := word("kind of a note", x.What); err != nil {
		return err
	}
	if x.Severity != machine.Info && x.Severity != machine.Warning && x.Severity != machine.Error {
		return refuse("note %s: severity %.20q is none", x.What, x.Severity)
	}
	c.event(x.Machine, x.What, x.Severity, clip(x.Text))
	c.events[len(c.events)-1].Data = maps.Clone(x.Data)
	c.machine = c.tables.machine(x.Machine)
	return nil
}
