package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"upkeep"
)

func newZone(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "zone",
		Short: "See what name servers answer, and move zones to upkeep",
		Args:  cobra.ArbitraryArgs,
		RunE:  verbsOnly,
	}
	c.AddCommand(newZoneStatus(a), newZoneAdopt(a), newZoneRenumber(a))
	return c
}

func newZoneStatus(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "status [ZONE]",
		Short: "Show what each name server of a zone answers",
		Long: `Show what each name server of a zone answers: it is asked after each publish until
it answers what was published, and then every half minute.`,
		Args: atMost(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.zoneStatus(c.Context(), args)
		},
	}
}

func (a *app) zoneStatus(ctx context.Context, args []string) error {
	up, err := a.client()
	if err != nil {
		return err
	}
	zones, err := up.Zones(ctx)
	if err != nil {
		return err
	}
	if len(args) == 1 {
		kept := zones[:0]
		for _, zone := range zones {
			if zone.Name == args[0] {
				kept = append(kept, zone)
			}
		}
		if zones = kept; len(zones) == 0 {
			return upkeep.WithHint(fmt.Errorf("zone %s: %w", args[0], upkeep.ErrNotFound), "upkeep get zone lists those that are declared")
		}
		if a.output != "table" {
			return a.show(zones[0])
		}
	}
	if a.output != "table" {
		return a.show(zones)
	}
	return zoneTable(zones, time.Now()).write(a.out)
}

// zoneTable has a line for each publisher and each name server.
func zoneTable(zones []upkeep.ZoneStatus, now time.Time) *table {
	t := newTable("ZONE", "WHAT", "SERIAL", "STATE")
	for _, zone := range zones {
		for _, p := range zone.Publishers {
			state := "published " + ago(p.At, now)
			if p.Error != "" {
				state = p.Error
				if p.Hint != "" {
					state += " (" + p.Hint + ")"
				}
			}
			t.add(zone.Name, "publisher "+p.By(), serial(p.Serial), state)
		}
		for _, s := range zone.Servers {
			state := "answers what was published"
			switch {
			case s.Error != "":
				state = s.Error
			case !s.InSync:
				state = "behind: serial " + serial(zone.Serial) + " was published"
			case s.Lag > 0:
				state += ", " + short(time.Duration(s.Lag)) + " after the publish"
			}
			t.add(zone.Name, "server "+s.Address, serial(s.Serial), state)
		}
		if len(zone.Publishers)+len(zone.Servers) == 0 {
			t.add(zone.Name, "", serial(zone.Serial), "nothing published yet")
		}
	}
	return t
}

func serial(n uint32) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatUint(uint64(n), 10)
}
