using k8s;
using k8s.Models;
using Tensormesh.TestKit;

namespace Tensormesh.Rights.Tests;

/// <summary>
/// Least privilege, proved: every test ran the executables with the committed rights and nothing more, so that a right that is missing failed some of them; and every
/// right that no test needed fails here. It looks at what the clusters of the whole run recorded (artifacts/rights), and so runs last: make test.
/// </summary>
public sealed class CommittedRightsTests
{
    /// <summary>What an audit log cannot show, and the test that fails without it.</summary>
    private static readonly Dictionary<Right, string> ProvedElsewhere = new()
    {
        // Looked at by an admission plugin when a child names its owner; not a request of its own.
        [new("tensormesh-operator", "update", "tensormesh.ai", "gpudeployments/finalizers", "")] = "OwnerRightsTests",
    };

    public static TheoryData<string, string> Files => new()
    {
        { "base/operator-rbac.yaml", "tensormesh-operator" },
        { "base/agent-rbac.yaml", "tensormesh-agent" },
        { "components/agent-labels/agent-labels.yaml", "tensormesh-agent" },
    };

    [Theory]
    [MemberData(nameof(Files))]
    public async Task Every_committed_right_was_needed_by_some_test(string file, string account)
    {
        var used = UsedRight.ReadRecorded().Where(right => right is { Allowed: true } && right.Program == account && right.Account == account).ToList();
        Assert.True(used.Count > 0, "no cluster of this run recorded what was asked of it: run make test, of which this is the last part");
        var committed = await CommittedAsync(file, account);
        Assert.NotEmpty(committed);
        var unused = committed.Where(right => !ProvedElsewhere.ContainsKey(right) && !used.Exists(right.Covers)).ToList();
        Assert.True(unused.Count == 0, $"manifests/{file} grants what no test needed; take it out, or test what needs it:\n{string.Join('\n', unused)}");
    }

    [Fact]
    public void A_right_that_was_not_used_is_found()
    {
        var right = new Right("tensormesh-operator", "patch", "", "nodes", "");
        var used = new UsedRight("tensormesh-operator", "tensormesh-operator", "patch", "", "nodes", "gpu-a", Allowed: true);
        Assert.True(right.Covers(used));
        Assert.False((right with { Verb = "update" }).Covers(used));
        Assert.False((right with { Resource = "nodes/status" }).Covers(used));
        Assert.False((right with { Name = "gpu-b" }).Covers(used));
    }

    [Fact]
    public async Task The_web_api_has_no_rights_at_all()
    {
        foreach (var file in Directory.EnumerateFiles(Repository.Folder("manifests"), "*.yaml", SearchOption.AllDirectories).Where(file => !file.Contains("examples", StringComparison.Ordinal)))
        {
            var text = await File.ReadAllTextAsync(file, TestContext.Current.CancellationToken);
            if (!text.Contains("kind: ClusterRoleBinding", StringComparison.Ordinal) && !text.Contains("kind: RoleBinding", StringComparison.Ordinal)) continue;
            Assert.DoesNotContain("tensormesh-web", text, StringComparison.Ordinal);
        }
    }

    /// <summary>Each verb of each rule on each of its resources and names.</summary>
    private static async Task<IReadOnlyList<Right>> CommittedAsync(string file, string account)
    {
        var objects = await KubernetesYaml.LoadAllFromFileAsync(Repository.Folder(["manifests", .. file.Split('/')]));
        var rules = objects.OfType<V1ClusterRole>().SelectMany(role => role.Rules).Concat(objects.OfType<V1Role>().SelectMany(role => role.Rules));
        return
        [
            .. from rule in rules
               from verb in rule.Verbs
               from grp in rule.ApiGroups
               from resource in rule.Resources
               from name in rule.ResourceNames ?? [""]
               select new Right(account, verb, grp, resource, name),
        ];
    }

    /// <param name="Name">Empty where the rule names none.</param>
    private sealed record Right(string Account, string Verb, string Group, string Resource, string Name)
    {
        public bool Covers(UsedRight used) => (used.Verb, used.Group, used.Resource) == (Verb, Group, Resource) && (Name.Length == 0 || used.Name == Name);

        public override string ToString() => $"{Verb} {Resource}{(Group.Length > 0 ? "." + Group : "")}{(Name.Length > 0 ? " " + Name : "")}";
    }
}
