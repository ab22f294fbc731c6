package etcd

import (
	"reflect"
	"testing"
)

func TestBefore(t *testing.T) {
	const own = "https://10.0.0.2:2380"
	leader := Member{ID: 1, Name: "node-1", PeerURLs: []string{"https://10.0.0.1:2380"}}
	added := Member{ID: 2, PeerURLs: []string{own}, Learner: true}
	begun := Member{ID: 2, Name: "node-2", PeerURLs: []string{own}, Learner: true}
	voter := Member{ID: 2, Name: "node-2", PeerURLs: []string{own}}
	foreign := Member{ID: 3, PeerURLs: []string{"https://10.0.0.3:2380"}, Learner: true}
	dead := Member{ID: 3, Name: "node-3", PeerURLs: []string{"https://10.0.0.3:2380"}}
	for name, test := range map[string]struct {
		members []Member
		data    bool
		want    Plan
	}{
		"first attempt":                         {[]Member{leader}, false, Plan{}},
		"data of a member that is no more":      {[]Member{leader}, true, Plan{Wipe: true}},
		"added, not begun":                      {[]Member{leader, added}, false, Plan{}},
		"added, data of another":                {[]Member{leader, added}, true, Plan{Remove: []Member{added}, Wipe: true}},
		"begun without a vote":                  {[]Member{leader, begun}, true, Plan{Remove: []Member{begun}, Wipe: true}},
		"begun without a vote, disk is new":     {[]Member{leader, begun}, false, Plan{Remove: []Member{begun}}},
		"it has a vote":                         {[]Member{leader, voter}, true, Plan{Keep: true}},
		"it had a vote, disk is new":            {[]Member{leader, voter}, false, Plan{Remove: []Member{voter}}},
		"another broke off":                     {[]Member{leader, foreign}, false, Plan{Remove: []Member{foreign}}},
		"another broke off, and it did":         {[]Member{leader, foreign, added}, true, Plan{Remove: []Member{foreign, added}, Wipe: true}},
		"another has a vote, dead or alive":     {[]Member{leader, dead}, false, Plan{}},
		"another broke off, this one has voted": {[]Member{leader, voter, foreign}, true, Plan{Remove: []Member{foreign}, Keep: true}},
	} {
		if got := Before(test.members, own, test.data); !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
	}
}
