using System.Globalization;
using System.Text;
using k8s;
using Npgsql;
using Tensormesh.Billing;
using Tensormesh.Operator.Reconciling;

namespace Tensormesh.Simulation.Tests;

/// <summary>What everybody in one story shares.</summary>
internal sealed class Stage : IDisposable
{
    public static readonly DateTimeOffset MonthOfStories = new(2025, 1, 1, 0, 0, 0, TimeSpan.Zero);

    /// <summary>How long what runs goes on after the last valid card went.</summary>
    public static readonly TimeSpan CardGrace = TimeSpan.FromMinutes(20);

    private readonly StringBuilder trace = new();

    public Stage(int seed, NpgsqlDataSource database, Flaw flaw, CancellationToken cancellation)
    {
        (Seed, Database, Flaw, Cancellation, Chance) = (seed, database, flaw, cancellation, new Random(seed));
        (Accounts, Products) = ([new($"s{seed}-a"), new($"s{seed}-b")], [new($"GPU-{seed}-P"), new($"GPU-{seed}-Q")]);
        Inventory = new GpuInventory([.. Products.Select(product => new GpuModel(product, 80_000, (9, 0), 8, 64, 8))], []);
        Policy = new CreditPolicy { HoldWindow = TimeSpan.FromMinutes(Chance.Next(1, 20)) };
        Fenced = Chance.Next(3) > 0;
        // Late in the month, so that a card of this month expires in the middle of the story.
        World = new World(Chance, MonthOfStories.AddMonths(1).AddMinutes(-Chance.Next(5, 240)));
        Auditor = new Auditor(World, database, Accounts, Policy, Count);
        Client = ClusterApi.Open(World, Mortality);
    }

    public int Seed { get; }
    public Flaw Flaw { get; }
    public NpgsqlDataSource Database { get; }
    public CancellationToken Cancellation { get; }
    public Random Chance { get; }
    public Mortality Mortality { get; } = new();
    public IReadOnlyList<AccountId> Accounts { get; }
    public IReadOnlyList<GpuProduct> Products { get; }
    public GpuInventory Inventory { get; }
    public CreditPolicy Policy { get; }
    /// <summary>Whether operators take epochs. Without, two that both believe they lead do whatever they want, and charges must stay single.</summary>
    public bool Fenced { get; }
    public World World { get; }
    public Auditor Auditor { get; }
    public IKubernetes Client { get; }
    /// <summary>Every instant at which some card became none: removed, refused, or at the end of its month.</summary>
    public HashSet<DateTimeOffset> CardLosses { get; } = [MonthOfStories.AddMonths(1)];
    public string Trace => trace.ToString();
    /// <summary>How often each kind of thing happened.</summary>
    public SortedDictionary<string, int> Tally { get; } = new(StringComparer.Ordinal);

    /// <summary>One more line of the trace, with the story's own time. Names are without the seed's number.</summary>
    public void Tell(string what)
        => trace.Append(World.Now.ToString("dd HH:mm:ss.ffffff ", CultureInfo.InvariantCulture)).AppendLine(what.Replace($"-{Seed}", "", StringComparison.Ordinal));

    public void Count(string what) => Tally[what] = Tally.GetValueOrDefault(what) + 1;

    public bool OneIn(int n) => Chance.Next(n) == 0;

    public T Pick<T>(IReadOnlyList<T> from) => from[Chance.Next(from.Count)];

    public void Dispose() => Client.Dispose();
}
