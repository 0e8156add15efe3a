namespace Tensormesh.TestKit;

/// <summary>Whom the operator is to the API server: itself, with the committed rights. A right that is missing fails the tests that need it.</summary>
internal static class OperatorRights
{
    private const string Account = "tensormesh-operator";

    /// <summary>Grants what the version's file of rights grants, and returns a kubeconfig of who it is granted to.</summary>
    /// <remarks>On a user's own cluster the kubeconfig is the user's: its authority makes no certificates for us.</remarks>
    public static async Task<string> GrantAsync(DevCluster cluster, ProductVersion version, CancellationToken cancellation)
    {
        if (cluster.IsUsersOwn) return cluster.KubeconfigPath;
        await Command.RunAsync(
            "kubectl", ["--kubeconfig", cluster.KubeconfigPath, "apply", "-f", version.OperatorRights], cancellation);
        var all = "system:serviceaccounts";
        return cluster.CreateKubeconfig($"system:serviceaccount:{Installation.Namespace}:{Account}", all, $"{all}:{Installation.Namespace}", "system:authenticated");
    }
}
