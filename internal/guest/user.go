package guest

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// user is who a command runs as.
type user struct {
	name     string
	uid, gid uint32
	groups   []uint32 // others than gid
	home     string
	shell    string

	// self says that the agent's own identity is this user's already.
	self bool
}

func (u user) credential() *syscall.Credential {
	if u.self {
		return nil
	}
	return &syscall.Credential{Uid: u.uid, Gid: u.gid, Groups: append([]uint32{u.gid}, u.groups...)}
}

// accounts is what a system's files say of its users.
type accounts struct{ passwd, group string }

// readAccounts reads the files of a system that may have none.
func readAccounts(etc string) accounts {
	passwd, _ := os.ReadFile(etc + "/passwd")
	group, _ := os.ReadFile(etc + "/group")
	return accounts{string(passwd), string(group)}
}

// find looks a user up by NAME, UID, NAME:GROUP or the like. Numbers need no
// entry.
func (a accounts) find(spec string) (u user, ok bool) {
	who, group, hasGroup := strings.Cut(spec, ":")
	u, ok = a.user(who)
	if !ok || !hasGroup {
		return u, ok
	}
	u.groups = nil
	u.gid, ok = a.groupID(group)
	return u, ok
}

func (a accounts) user(who string) (user, bool) {
	if f := record(a.passwd, 7, func(f []string) bool { return f[0] == who }); f != nil {
		return a.fromRecord(f)
	}
	if who == "root" {
		return user{name: "root", home: "/root"}, true
	}
	id, err := strconv.ParseUint(who, 10, 32)
	if err != nil {
		return user{}, false
	}
	if f := record(a.passwd, 7, func(f []string) bool { return f[2] == who }); f != nil {
		return a.fromRecord(f)
	}
	if id == 0 {
		return a.user("root")
	}
	return user{name: who, uid: uint32(id), gid: uint32(id), home: "/"}, true
}

func (a accounts) fromRecord(f []string) (user, bool) {
	uid, err := strconv.ParseUint(f[2], 10, 32)
	if err != nil {
		return user{}, false
	}
	gid, err := strconv.ParseUint(f[3], 10, 32)
	if err != nil {
		return user{}, false
	}
	u := user{name: f[0], uid: uint32(uid), gid: uint32(gid), home: f[5], shell: f[6]}
	u.groups = a.groupsOf(u.name, u.gid)
	return u, true
}

// groupsOf lists the groups a user is a member of but gid.
func (a accounts) groupsOf(name string, gid uint32) (ids []uint32) {
	for line := range strings.Lines(a.group) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) < 4 || !slices.Contains(strings.Split(f[3], ","), name) {
			continue
		}
		if id, err := strconv.ParseUint(f[2], 10, 32); err == nil && uint32(id) != gid {
			ids = append(ids, uint32(id))
		}
	}
	return ids
}

func (a accounts) groupID(group string) (uint32, bool) {
	if f := record(a.group, 3, func(f []string) bool { return f[0] == group }); f != nil {
		group = f[2]
	}
	id, err := strconv.ParseUint(group, 10, 32)
	return uint32(id), err == nil
}

// record is the first line of a table, split, that has enough fields and is
// wanted; nil if there is none.
func record(table string, fields int, wanted func([]string) bool) []string {
	for line := range strings.Lines(table) {
		f := strings.Split(strings.TrimRight(line, "\n"), ":")
		if len(f) >= fields && wanted(f) {
			return f
		}
	}
	return nil
}
